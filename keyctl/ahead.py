"""Mint one key string and hash it in a thread, while a command is still being imported."""

import threading

from keyctl import hashing, keystring
from keyctl.keystring import KeyString


class Ahead:
    """A key string whose hash is made while something else is done.

    bcrypt lets go of Python's lock, so a second core makes a sixth of a `generate` meanwhile.
    """

    def __init__(self, cost: int) -> None:
        self._key = keystring.mint()
        self._cost = cost
        self._hash = ""
        self._is_taken = False
        # No daemon: Python would end the thread inside bcrypt, and that ends the process by SIGABRT.
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def mint(self) -> KeyString:
        """Return the key string that is being hashed; a new one each time after that."""
        if self._is_taken:
            return keystring.mint()
        self._is_taken = True
        return self._key

    def hash(self, key: KeyString, *, cost: int) -> str:
        """Return what `hashing.hash_key` does, and wait for the thread if it is on it."""
        if key is self._key and cost == self._cost:
            self._thread.join()
            if self._hash:
                return self._hash
        return hashing.hash_key(key, cost=cost)

    def _work(self) -> None:
        self._hash = hashing.hash_key(self._key, cost=self._cost)
