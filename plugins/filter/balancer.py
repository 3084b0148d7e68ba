"""Filters of the balancer role: which path goes where, with which timeouts."""

from ansible.errors import AnsibleFilterError

WEBSOCKET_READ = 60


def lanes(routes, long_paths, connect, read):
    """Give one lane for each path that has servers or a timeout of its own.

    A lane is a path prefix with its route, its read timeout, the tries a request has, and the
    window in seconds within which a host may be given up on for the next one. Where answers may
    take long, only a failure to connect is worth another host, so the window closes early.
    """
    settings = {}
    for route in routes:
        timeout = WEBSOCKET_READ if route.get("websocket") else read
        settings[route["path"]] = (route, timeout)
    for path, timeout in long_paths.items():
        settings[path] = (_longest(path, routes), int(timeout))

    found = []
    numbers = {}
    for path, (route, timeout) in sorted(settings.items()):
        name = route["name"].replace("-", "_")
        number = numbers[name] = numbers.get(name, 0) + 1
        tries = min(max(len(route["servers"]), 2), 3)
        found.append(
            {
                "id": f"{name}{number}",
                "upstream": f"balancer_{name}",
                "path": path,
                "route": route,
                "read": timeout,
                "tries": tries,
                "window": (tries - 1) * (read if timeout <= read else 0) + tries * connect + 1,
            }
        )
    return found


def lane_of(path, found):
    """Give the lane that answers for a path which something else answers first."""
    return _longest(path.removeprefix("="), found)


def _longest(path, candidates):
    matching = [each for each in candidates if path.startswith(each["path"])]
    if not matching:
        raise AnsibleFilterError(f"no route leads to {path}: give one process type the route /")
    return max(matching, key=lambda each: len(each["path"]))


class FilterModule:
    """Make the filters known to Ansible."""

    def filters(self):
        """Name the filters."""
        return {"balancer_lanes": lanes, "balancer_lane_of": lane_of}
