"""A company of cards, as far as a demonstration needs one: a file that remembers keys and counts charges.

python card.py FILE  says what was charged.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path


def _open(file: str | Path) -> "closing[sqlite3.Connection]":
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS charge (key TEXT PRIMARY KEY, amount INTEGER, receipt TEXT)")
    connection.execute("CREATE TABLE IF NOT EXISTS request (key TEXT)")
    return closing(connection)


def charge(file: str | Path, amount: int, key: str) -> str:
    """Charge a card, once for each key; who asks again gets the same receipt."""
    with _open(file) as connection:
        connection.execute("INSERT INTO request VALUES (?)", (key,))
        number = connection.execute("SELECT count(*) FROM charge").fetchone()[0] + 1
        connection.execute("INSERT OR IGNORE INTO charge VALUES (?, ?, ?)", (key, amount, f"R{number}"))
        receipt: str = connection.execute("SELECT receipt FROM charge WHERE key = ?", (key,)).fetchone()[0]
    return receipt


def charges(file: str | Path) -> list[int]:
    """The amounts that were charged."""
    with _open(file) as connection:
        return [amount for (amount,) in connection.execute("SELECT amount FROM charge ORDER BY receipt")]


def requests(file: str | Path) -> int:
    """How often somebody asked."""
    with _open(file) as connection:
        return int(connection.execute("SELECT count(*) FROM request").fetchone()[0])


if __name__ == "__main__":
    print(f"{len(charges(sys.argv[1]))} charges, asked for {requests(sys.argv[1])} times: {charges(sys.argv[1])}")
