#!/bin/bash
# Run `molecule test` for scenarios, so many at a time; print a line for each, and what went wrong
# in those that fail. Usage: tests/molecule.sh JOBS SCENARIO...
set -u
export NO_COLOR=1 # with colours Molecule draws boxes, which break lines apart
jobs=$1
shift
logs=.lab/molecule
mkdir -p "$logs"
rm -f "$logs/failed"

# shellcheck disable=SC2329 # xargs calls it
one() {
    log=$1/$2.log
    start=$SECONDS
    # Molecule passes a scenario without tests.
    if ! ls "tests/host/$2"/test_*.py >/dev/null 2>&1; then
        echo "$2: no tests in tests/host/$2" >"$log"
    elif timeout 1500 molecule test -s "$2" >"$log" 2>&1 </dev/null; then
        printf '  ok      %-18s %4d s  %s\n' "$2" $((SECONDS - start)) \
            "$(grep -oE '[0-9]+ passed' "$log" | tail -1)"
        return 0
    fi
    printf '  FAILED  %-18s %4d s  %s\n' "$2" $((SECONDS - start)) "$log"
    return 1
}
export -f one

echo "==> molecule test, $jobs at a time: $*"
# shellcheck disable=SC2016 # the inner shell expands it
if printf '%s\n' "$@" | xargs -P "$jobs" -I{} bash -c 'one "$0" "$1" || { echo "$1" >>"$0/failed"; }' "$logs" {}; then :; fi
[ -s "$logs/failed" ] || exit 0
while read -r scenario; do
    echo "==> $scenario: .lab/molecule/$scenario.log"
    reason=$(cut -c1-400 "$logs/$scenario.log" |
        grep -nE -A 8 '^(fatal|failed): |^E  |^FAILED |CRITICAL .*(test|playbook)' | tail -n 80)
    echo "${reason:-$(tail -n 40 "$logs/$scenario.log")}"
done <"$logs/failed"
rm -f "$logs/failed"
exit 1
