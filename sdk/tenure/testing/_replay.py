"""An agent's calls once more, in one life: what its state and its replies would have been without any trouble."""

from __future__ import annotations

from collections.abc import Sequence

from tenure import _codec
from tenure._turn import Activation
from tenure.testing._history import Call
from tenure.testing._program import Image
from tenure_link import Turn


async def replay(
    image: Image, agent_id: str, made: tuple[str, bytes, bytes], calls: Sequence[Call], state: bytes
) -> None:
    """Run these calls on a new agent and compare. `made`: class, initial state, config. Raises AssertionError."""
    name, initial, config = made
    activation = Activation(
        image.imported()[name], uid="0", agent_id=agent_id, epoch=1, stored=None, initial=initial, config=config
    )
    alone = activation.first
    for number, call in enumerate(calls, start=1):
        arguments = _codec.pack(dict(call.arguments))
        done = await activation.run(Turn(number, "0", "action", call.method, arguments, 0, call_id=call.id))
        if done.fault is not None:
            raise AssertionError(f"{call.id}, {call.method} of {agent_id}, took effect; alone: {done.fault.message}")
        activation.commit(number)
        alone = alone if done.state is None else done.state
        reply = _codec.unpack(done.reply or b"\xc0")
        if call.outcome == "applied" and reply != call.reply:
            raise AssertionError(
                f"{call.id}, {call.method} of {agent_id}, was answered {call.reply!r}; after the same calls in one "
                f"process it is {reply!r}: does the agent keep something outside of its state?"
            )
    if (found := _codec.unpack(state)) != (expected := _codec.unpack(alone or b"\xc0")):
        raise AssertionError(f"the state of {agent_id} is {found!r}; its calls alone make {expected!r} of it")
