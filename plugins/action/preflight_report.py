"""Print problems, one line each, and fail once if there are any."""

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):
    """preflight_report: {problems: []}."""

    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Print and, if there was anything to print, fail."""
        result = super().run(tmp, task_vars)
        problems = list(dict.fromkeys(self._task.args["problems"]))
        display = Display()
        for problem in problems:
            display.display(f"preflight: {problem}")  # not wrapped, so that it can be copied
        if problems:
            count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
            result.update(failed=True, msg=f"{count} to solve first; nothing has been changed")
        return result
