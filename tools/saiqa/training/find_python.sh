# Sourced by the shell commands with `tools` set: sets `python` to one that has the requirements, and PYTHONPATH to tools/.
if [ -n "${PYTHON:-}" ]; then
  python="$PYTHON"
elif [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$tools/../.venv/bin/python" ]; then
  python="$tools/../.venv/bin/python"
else
  python="$(command -v python || command -v python3)"
fi
export PYTHONPATH="$tools${PYTHONPATH:+:$PYTHONPATH}"
