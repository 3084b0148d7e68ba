"""What a drill measured: verdicts, tables and plots. playbooks/drill.yml does the breaking.

`python -m plugins.drill --help` is the command.
"""
