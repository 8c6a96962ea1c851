# SPDX-License-Identifier: GPL-2.0
"""Carries bytes between the VM and this process's own input and outputs."""

import os
import selectors
import socket
import sys
import termios
import time
import tty
from contextlib import contextmanager


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


class Follower:
    """Copies files that the VM's output grows in, as they grow.

    Files, and not sockets or pipes: QEMU drops what a console's socket has no
    room for, and a program that stops reading would stop the VM's kernel.
    """

    def __init__(self, copies: list[tuple[str, int]]) -> None:
        self.copies = [(open(path, "rb"), fd) for path, fd in copies]

    def turn(self, seconds: float) -> bool:
        """Copy what there is, or else wait; was there anything?"""
        found = False
        for file, fd in self.copies:
            data = file.read(1 << 20)
            write_all(fd, data)
            found = found or bool(data)
        if not found:
            time.sleep(seconds)
        return found

    def close(self) -> None:
        for file, _ in self.copies:
            file.close()


class Terminal:
    """Joins the VM's terminal, a socket, to ours."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.selector = selectors.DefaultSelector()
        self.selector.register(line, selectors.EVENT_READ, self.show)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.type)

    def show(self) -> bool:
        try:
            data = self.line.recv(65536)
        except ConnectionResetError:
            data = b""
        write_all(sys.stdout.fileno(), data)
        return bool(data)

    def type(self) -> bool:
        data = os.read(sys.stdin.fileno(), 4096)
        try:
            self.line.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return bool(data)

    def turn(self, seconds: float) -> bool:
        """Copy what there is, waiting if there is nothing; was there anything?"""
        events = self.selector.select(seconds)
        for key, _ in events:
            if not key.data():
                self.selector.unregister(key.fileobj)
        return bool(events)

    def close(self) -> None:
        self.selector.close()
        self.line.close()


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
