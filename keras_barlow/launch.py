"""Starts a script as several workers on this machine, as `torchrun` does.

    python -m keras_barlow.launch --workers=2 examples/pretrain.py --recipe=digits

Each worker gets a `TF_CONFIG` with free ports, and the script selects the strategy `"multi_worker"` (or `"auto"`). If a
worker fails, the launcher stops the others and reports which one failed. It forwards SIGTERM and Ctrl-C to the workers.
The output of worker 0 is printed as is; lines of the other workers are prefixed with their number.
"""

import argparse
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

_GRACE_SECONDS = 10


def main(arguments=None):
    """Runs a script as several workers and waits for them.

    Args:
        arguments: List of command-line arguments; None for `sys.argv`.

    Returns:
        The exit status: 0, or that of the worker that failed first, which is 128 plus the signal number if it was
        killed.
    """
    parser = argparse.ArgumentParser(prog="python -m keras_barlow.launch", description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, required=True, help="number of workers, at least 1")
    parser.add_argument("script", help="Python file to run in each worker")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="arguments of the script")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers must be at least 1. Received: {options.workers}")
    if not os.path.isfile(options.script):
        parser.error(f"the script must be a file. Received: {options.script}")
    return run([sys.executable, options.script, *options.flags], options.workers)


def run(command, workers):
    """Runs a command as several workers.

    Args:
        command: Command as a list of strings.
        workers: Number of workers.

    Returns:
        The exit status: 0, or that of the worker that failed first, which is 128 plus the signal number if it was
        killed.
    """
    addresses = [f"localhost:{port}" for port in _free_ports(workers)]
    processes, readers = [], []

    def stop_workers(number, frame):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    handlers = {number: signal.signal(number, stop_workers) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for index in range(workers):
            processes.append(_start(command, addresses, index))
            if index:
                readers.append(threading.Thread(target=_print_marked, args=(processes[-1], index), daemon=True))
                readers[-1].start()
        failed = _first_failure(processes)
        if failed is None:
            return 0
        status = processes[failed].returncode
        outcome = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        print(f"launch: worker {failed} ({addresses[failed]}) {outcome}.", file=sys.stderr, flush=True)
        return 128 - status if status < 0 else status
    finally:
        _end(processes)
        for reader in readers:
            reader.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _free_ports(count):
    # Keep all sockets open until every port is known, so that no port is used twice.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free_socket in sockets:
            free_socket.bind(("localhost", 0))
        return [free_socket.getsockname()[1] for free_socket in sockets]


def _start(command, addresses, index):
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    environment = {**os.environ, "TF_CONFIG": json.dumps(cluster)}
    # The workers share the cores of this machine.
    threads = max(1, (os.cpu_count() or 1) // len(addresses))
    environment.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if index else {}
    return subprocess.Popen(command, env=environment, preexec_fn=_die_with_parent, **output)


def _die_with_parent():
    """Runs in the worker process: makes the kernel kill it when the launcher dies (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _print_marked(process, index):
    for line in process.stdout:
        sys.stderr.write(f"[worker {index}] {line.decode(errors='replace')}")
        sys.stderr.flush()


def _first_failure(processes):
    """Waits until all workers succeed, and returns None, or until one fails, and returns its index."""
    while True:
        states = [process.poll() for process in processes]
        # When a worker is killed, others fail soon after, so report the killed worker first.
        killed = [index for index, state in enumerate(states) if state is not None and state < 0]
        failed = killed + [index for index, state in enumerate(states) if state]
        if failed:
            return failed[0]
        if None not in states:
            return None
        time.sleep(0.1)


def _end(processes):
    for act in (subprocess.Popen.terminate, subprocess.Popen.kill):
        running = [process for process in processes if process.poll() is None]
        for process in running:
            act(process)
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
