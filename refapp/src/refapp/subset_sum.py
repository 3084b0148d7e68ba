"""Program: print the subsets of some numbers that add up to a sum, as they are found.

pool.py starts it by its path, with the standard library alone: it is up in 20 ms and shares
nothing with a worker. Its input is one line, `{"data": [numbers], "sum": number}`, and then
nothing: the end of the input is the order to stop, which also comes when the starter is killed.
Its output is JSON lines, and its last is `{"event": "end", …}`.
"""

import itertools
import json
import os
import sys
import threading
import time


def search(data, wanted):
    """Yield a subset that adds up to `wanted`, or None, for each step of the search."""
    # The least and the most that the numbers from each place on can add.
    lows = list(itertools.accumulate((min(n, 0) for n in reversed(data)), initial=0))[::-1]
    highs = list(itertools.accumulate((max(n, 0) for n in reversed(data)), initial=0))[::-1]
    open_ = [(0, wanted, ())]
    while open_:
        place, missing, chosen = open_.pop()
        if not lows[place] <= missing <= highs[place]:
            yield None
        elif place < len(data):
            open_.append((place + 1, missing, chosen))
            open_.append((place + 1, missing - data[place], (*chosen, data[place])))
            yield None
        else:
            yield chosen or None


def main():
    """Read the task and print what is found."""
    # Whatever answers requests on this host goes first.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    task = json.loads(sys.stdin.buffer.readline())
    share, began = task.get("share", 100), time.monotonic()
    threading.Thread(target=stop_with_the_input, daemon=True).start()
    steps = matches = 0
    for subset in search(task["data"], task["sum"]):
        steps += 1
        if share < 100 and steps % 1024 == 0:
            due = time.process_time() * 100 / share
            time.sleep(max(0, due - (time.monotonic() - began)))
        if subset:
            matches += 1
            print(json.dumps({"event": "match", "subset": subset}), flush=True)
    print(json.dumps({"event": "end", "reason": "complete", "matches": matches, "steps": steps}))


def stop_with_the_input():
    """Wait for the end of the input."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
