#!/bin/bash
# The HTTP reason phrase of a server holds escape sequences (OSC 52 writes the clipboard): none may reach the terminal.
. "$(dirname "${BASH_SOURCE[0]}")/../_lib/lib.sh"
serve <<'P'
def evil(self,j):
    self.raw(b"HTTP/1.1 400 \x1b]52;c;ZXZpbA==\x07\x1b[31mno\r\nContent-Length: 2\r\n\r\nno")
P
timeout 60 "$PA" annotate r >out 2>&1 </dev/null; rc=$?
if grep -q "$(printf '\033')" out; then echo "escape sequences of the server reach the terminal: $(grep -m1 "$(printf '\033')" out | cat -v | cut -c1-160)"; exit 1; fi
if [ $rc -gt 2 ]; then echo "ended with $rc: $(tail -1 out)"; exit 1; fi
echo "ok: rc $rc"; exit 0
