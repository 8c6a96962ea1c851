# SPDX-License-Identifier: GPL-2.0
"""Carries bytes between the VM's lines and this process's own files."""

import os
import selectors
import socket
import sys
import termios
import tty
from contextlib import contextmanager


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def receive(line: socket.socket) -> bytes:
    """What the VM wrote; nothing once it is gone."""
    try:
        return line.recv(65536)
    except ConnectionResetError:
        return b""


def send(line: socket.socket, data: bytes) -> bool:
    """Give the VM `data`; false once it is gone."""
    try:
        line.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


class Relay:
    """Copies until told to stop; needs no threads."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def outward(self, line: socket.socket, fd: int) -> None:
        """Copy what the VM writes on `line` to our descriptor `fd`."""

        def copy() -> bool:
            data = receive(line)
            write_all(fd, data)
            return bool(data)

        self.selector.register(line, selectors.EVENT_READ, copy)

    def inward(self, fd: int, line: socket.socket) -> None:
        """Copy what is typed on our descriptor `fd` to `line`."""

        def copy() -> bool:
            data = os.read(fd, 4096)
            return bool(data) and send(line, data)

        self.selector.register(fd, selectors.EVENT_READ, copy)

    def turn(self, seconds: float) -> bool:
        """Copy what there is, waiting `seconds` at most; was there anything?"""
        events = self.selector.select(seconds)
        for key, _ in events:
            if not key.data():
                self.selector.unregister(key.fileobj)
        return bool(events)


@contextmanager
def raw_terminal():
    """Pass each key press on unchanged, and put the terminal right afterwards."""
    fd = sys.stdin.fileno()
    saved = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)
