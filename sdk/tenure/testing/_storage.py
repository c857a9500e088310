"""What every `tenure.storage.Storage` must do, as tests that are inherited."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from tenure.storage import Checkpoint, Journal, RevisionConflict, Storage, StorageError

KEYS = (
    "shop/counter-1",
    "a",
    "../../etc/passwd",
    "..",
    "/",
    "ü/ 中",
    "x" * 400,
    "a.data",
    "a+",
    "A",
    "%2E",
    "a\\b",
    "~",
)


class StorageContract:
    """Inherit it in a test module and say how yours is made:

        class TestMine(StorageContract):
            async def make(self) -> Storage:
                return Mine(...)  # the same data each time within one test

    The tests are coroutines: pytest-asyncio in auto mode runs them, or any other plugin that does.
    """

    durable: ClassVar[bool] = True
    """Whether another object made by `make` finds what the first one kept, once that is closed."""

    async def make(self) -> Storage:
        """A new object over the same data. Within one test the one before is closed first."""
        raise NotImplementedError

    async def test_nothing_is_there_at_first(self) -> None:
        """No checkpoint, an empty journal, no keys."""
        kept = await self.make()
        assert await kept.get("a") is None
        assert await kept.load("a") == Journal((), 1, 0)
        assert await kept.keys() == []
        await kept.close()

    async def test_a_checkpoint_is_replaced(self) -> None:
        """The last one counts, whatever its size; revisions begin at 1 and grow by one."""
        kept = await self.make()
        assert await kept.put("a", b"one") == 1
        assert await kept.put("a", b"") == 2
        assert await kept.get("a") == Checkpoint(b"", 2)
        large = bytes(range(256)) * 8192
        assert await kept.put("a", large) == 3
        assert await kept.get("a") == Checkpoint(large, 3)
        assert await kept.get("b") is None
        await kept.close()

    async def test_an_unexpected_revision_changes_nothing(self) -> None:
        """The loser of two writers learns the revision that there is."""
        kept = await self.make()
        assert await kept.put("a", b"one", expected=0) == 1
        try:
            await kept.put("a", b"two", expected=0)
        except RevisionConflict as conflict:
            assert (conflict.key, conflict.expected, conflict.actual) == ("a", 0, 1)
        else:
            raise AssertionError("the second writer was not told")
        assert await kept.get("a") == Checkpoint(b"one", 1)
        assert await kept.put("a", b"two", expected=1) == 2
        await kept.close()

    async def test_a_journal_grows_at_its_end(self) -> None:
        """Entries keep their order and their numbers; an append of nothing is nothing."""
        kept = await self.make()
        assert await kept.append("a", [b"one", b""]) == 2
        assert await kept.append("a", []) == 2
        assert await kept.append("a", [b"three"], expected=2) == 3
        assert await kept.load("a") == Journal((b"one", b"", b"three"), 1, 3)
        assert await kept.load("a", after=2) == Journal((b"three",), 3, 3)
        assert await kept.load("a", after=3) == Journal((), 4, 3)
        try:
            await kept.append("a", [b"four", b"five"], expected=2)
        except RevisionConflict as conflict:
            assert (conflict.expected, conflict.actual) == (2, 3)
        else:
            raise AssertionError("the second writer was not told")
        assert (await kept.load("a")).revision == 3, "all or none"
        await kept.close()

    async def test_concurrent_writers_are_told_apart(self) -> None:
        """Of many writers that expect the same revision one wins; appends without an expectation all arrive."""
        kept = await self.make()
        results = await asyncio.gather(
            *(kept.put("a", b"%d" % number, expected=0) for number in range(10)), return_exceptions=True
        )
        assert [result for result in results if not isinstance(result, RevisionConflict)] == [1]
        ends = await asyncio.gather(*(kept.append("a", [b"%d" % number]) for number in range(10)))
        assert sorted(ends) == list(range(1, 11))
        journal = await kept.load("a")
        assert sorted(journal.entries) == [b"%d" % number for number in range(10)]
        await kept.close()

    async def test_keys_do_not_meet(self) -> None:
        """Whatever they look like: none is another's, none leads anywhere else."""
        kept = await self.make()
        for number, key in enumerate(KEYS):
            await kept.put(key, b"%d" % number)
            await kept.append(key, [b"%d" % number])
        for number, key in enumerate(KEYS):
            assert await kept.get(key) == Checkpoint(b"%d" % number, 1)
            assert (await kept.load(key)).entries == (b"%d" % number,)
        assert await kept.keys() == sorted(KEYS)
        await kept.close()

    async def test_a_key_that_cannot_be_is_refused(self) -> None:
        """Empty, too long, or with what cannot be printed."""
        kept = await self.make()
        for key in ("", "x" * 401, "a\nb", "a\0b"):
            for attempt in (kept.get(key), kept.put(key, b""), kept.load(key), kept.append(key, [b""])):
                try:
                    await attempt
                except ValueError:
                    continue
                raise AssertionError(f"{key!r} was taken")
        await kept.close()

    async def test_deleting_begins_anew(self) -> None:
        """Checkpoint and journal go; revisions begin again. What is not there can be deleted too."""
        kept = await self.make()
        await kept.put("a", b"one")
        await kept.append("a", [b"one"])
        await kept.delete("a")
        await kept.delete("a")
        assert await kept.get("a") is None
        assert await kept.load("a") == Journal((), 1, 0)
        assert await kept.keys() == []
        assert await kept.put("a", b"two", expected=0) == 1
        await kept.close()

    async def test_a_closed_storage_says_so(self) -> None:
        """Closing twice is closing once."""
        kept = await self.make()
        await kept.close()
        await kept.close()
        try:
            await kept.get("a")
        except StorageError:
            return
        raise AssertionError("a closed storage answered")

    async def test_what_was_kept_is_found_again(self) -> None:
        """By another object, after the first was closed; unless it does not claim to (`durable = False`)."""
        first = await self.make()
        await first.put("shop/a", b"state")
        await first.append("shop/a", [b"one", b"two"])
        await first.close()
        if not self.durable:
            return
        second = await self.make()
        assert await second.get("shop/a") == Checkpoint(b"state", 1)
        assert await second.append("shop/a", [b"three"], expected=2) == 3
        assert await second.keys() == ["shop/a"]
        await second.close()
