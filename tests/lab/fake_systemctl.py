"""A stand-in for systemctl. Units are files with a shell command; their processes live where systemd would put them."""

from __future__ import annotations

from pathlib import Path

SCRIPT = """\
#!/bin/sh
verb= unit=
for word; do case $word in --*) ;; *) if [ -z "$verb" ]; then verb=$word; else unit=$word; fi ;; esac; done
file=$UNITS/$unit cgroup=$CGROUPS/system.slice/$unit
echo "$*" >> $UNITS/.calls
alive() { grep -qs "populated 1" "$cgroup/cgroup.events"; }
gone() { [ ! -e "$cgroup" ] || echo 1 > "$cgroup/cgroup.kill"; while alive; do sleep 0.01; done; }
case $verb in
  show)
    [ -e "$file" ] && load=loaded || load=not-found
    if alive; then state=active result=success
    elif [ -e "$file.started" ]; then state=failed result=exit-code
    else state=inactive result=success; fi
    echo "LoadState=$load"; echo "ActiveState=$state"; echo "Result=$result"; echo "ExecMainStatus=3"
    echo "UnitFileState=$(cat "$file.state" 2>/dev/null || echo disabled)" ;;
  start)
    grep -q '^fails' "$file" && { echo "Job for $unit failed."; exit 1; }
    mkdir -p "$cgroup"
    sh -c 'echo 0 > "$0/cgroup.procs"; exec sh "$1"' "$cgroup" "$file" </dev/null >/dev/null 2>&1 &
    until alive; do sleep 0.01; done
    touch "$file.started" ;;
  stop) alive && grep -q stubborn "$file" && exec sleep 600; gone; rm -f "$file.started" ;;
  kill) gone; rm -f "$file.started" ;;
esac
"""


def make(directory: Path, cgroups: Path) -> Path:
    """The program; ``directory`` holds the units, ``cgroups`` is where system.slice is."""
    directory.mkdir()
    program = directory / ".systemctl"
    program.write_text(SCRIPT.replace("$UNITS", str(directory)).replace("$CGROUPS", str(cgroups)))
    program.chmod(0o755)
    return program
