"""Lets tests import plugins/modules, which find plugins/module_utils as Ansible ships them."""

from pathlib import Path

import ansible.module_utils

ansible.module_utils.__path__.append(
    str(Path(__file__).resolve().parents[2] / "plugins/module_utils")
)
