#!/usr/bin/python
"""Make a bucket through Swift's own API, with the host's Python alone."""

import time
import urllib.error
import urllib.parse
import urllib.request

from ansible.module_utils.basic import AnsibleModule

READ = "X-Container-Read"
QUOTA = "X-Container-Meta-Quota-Bytes"


def call(method, url, headers, attempts=10):
    """Return status and headers; wait out a store that is still starting."""
    for attempt in range(1, attempts + 1):
        request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 (the role's own URL)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.headers
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == attempts:
                return error.code, error.headers
        except OSError:
            if attempt == attempts:
                raise
        time.sleep(2)


def wanted_acl(current, public_read):
    """Return the read ACL with public access on or off, other grants kept."""
    grants = [grant for grant in current.split(",") if grant and not grant.startswith(".r:")]
    return ",".join([".r:*"] * public_read + grants)


def converge(params, check_mode):
    """Return whether the bucket had to change."""
    status, headers = call(
        "GET",
        params["url"] + "/auth/v1.0",
        {"X-Auth-User": f"{params['account']}:{params['user']}", "X-Auth-Key": params["key"]},
        attempts=1 if check_mode else 10,
    )
    if status != 200:
        raise RuntimeError(f"{params['account']}:{params['user']} can't log in: status {status}")
    token = {"X-Auth-Token": headers["X-Auth-Token"]}
    path = urllib.parse.urlsplit(headers["X-Storage-Url"]).path
    bucket = f"{params['url']}{path}/{urllib.parse.quote(params['name'])}"

    status, headers = call("HEAD", bucket, token)
    if status not in (204, 404):
        raise RuntimeError(f"looking for bucket {params['name']}: status {status}")
    acl, quota = headers.get(READ, ""), headers.get(QUOTA, "")
    wanted = {
        READ: wanted_acl(acl, params["public_read"]),
        QUOTA: str(params["quota_bytes"] or ""),
    }
    if status == 204 and wanted == {READ: acl, QUOTA: quota}:
        return False
    if not check_mode:
        status, _ = call("POST" if status == 204 else "PUT", bucket, token | wanted)
        if status not in (201, 202, 204):
            raise RuntimeError(f"making bucket {params['name']}: status {status}")
    return True


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"default": "http://127.0.0.1:8081"},
            "account": {"required": True},
            "user": {"required": True},
            "key": {"required": True, "no_log": True},
            "name": {"required": True},
            "public_read": {"type": "bool", "default": False},
            "quota_bytes": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    try:
        changed = converge(module.params, module.check_mode)
    except OSError as error:
        if module.check_mode:  # a fresh host: nothing listens yet
            module.exit_json(changed=True)
        module.fail_json(msg=f"{module.params['url']} does not answer: {error}")
    except RuntimeError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()

DOCUMENTATION = r"""
module: swift_bucket
short_description: Make a bucket of an object store
description:
  - Makes the bucket where it is missing, and sets its read ACL and quota.
  - Runs on a member of the store. Never deletes a bucket.
author: [Evenkeel]
options:
  url: {description: Address of the Swift proxy., type: str, default: "http://127.0.0.1:8081"}
  account: {description: Account that owns the bucket., type: str, required: true}
  user: {description: User of the account., type: str, required: true}
  key: {description: Secret key of the user., type: str, required: true}
  name: {description: Name of the bucket., type: str, required: true}
  public_read: {description: Whether anyone may read its objects., type: bool, default: false}
  quota_bytes: {description: Most bytes that it may hold (0 is no limit)., type: int, default: 0}
"""
