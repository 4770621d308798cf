"""Asks a RabbitMQ node questions in Erlang, through one Erlang machine that stays.

`rabbitmqctl` starts an Erlang machine for each command, which costs half a second; here only the
first question does. It ends by itself when the process that started it is gone.
"""

import atexit
import base64
import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping

# A question that waits for a node that starts or shuts down; a healthy one answers in milliseconds.
_ANSWER_S_MAX = 60

# Each line that it reads is an expression, which the node evaluates; each line that it writes is
# the kind of the answer, and the answer in base64, so that it has no line ends.
_PROGRAM = """
io:setopts([{encoding, unicode}]),
Node = list_to_atom(os:getenv("ORDERKEEP_TEST_NODE")),
Answer = fun(Kind, Term) ->
    Text = unicode:characters_to_binary(io_lib:format("~0tp", [Term])),
    io:put_chars([Kind, " ", base64:encode(Text), "\\n"])
end,
Ask = fun(Line) ->
    {ok, Tokens, _} = erl_scan:string(Line),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    case rpc:call(Node, erl_eval, exprs, [Expressions, []], %d) of
        {value, Value, _} -> Answer("value", Value);
        Error -> Answer("error", Error)
    end
end,
Serve = fun(Again) ->
    case io:get_line("") of
        Line when is_list(Line) ->
            try Ask(Line) catch _:Reason -> Answer("error", Reason) end,
            Again(Again);
        _ -> halt(0)
    end
end,
Serve(Serve).
"""

_numbers = itertools.count(1)


class ErlangError(Exception):
    """The node did not answer, or did not like the question."""


class ErlangShell:
    """Evaluates expressions on a node; starts with the first of them."""

    def __init__(self, node_name: str, *, environment: Mapping[str, str]) -> None:
        """Start nothing yet.

        Args:
            node_name: Such as `rabbit@localhost`.
            environment: All of it. Its HOME holds the cookie of the node.
        """
        self.node_name = node_name
        self.environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._owner_pid = os.getpid()

    def evaluate(self, expression: str) -> str:
        """Return what an Erlang expression, with its full stop, is worth on the node, as text.

        Raises:
            ErlangError: the node does not run, or the expression failed.
        """
        assert "\n" not in expression, "one line is one question"
        with self._lock:
            kind, _, answer = self._exchange(expression).partition(" ")
        text = base64.b64decode(answer).decode()
        if kind != "value":
            message = f"{self.node_name} on {expression}: {text or 'Erlang ended'}"
            raise ErlangError(message)
        return text

    def close(self) -> None:
        """End its Erlang machine, if it has one that is of this process."""
        if self._process is not None and os.getpid() == self._owner_pid:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

    def _exchange(self, line: str) -> str:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = self._start()
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        # The node's answer has a time limit; this one is for an Erlang machine that hangs.
        guard = threading.Timer(_ANSWER_S_MAX + 10, process.kill)
        guard.start()
        try:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            return process.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            guard.cancel()

    def _start(self) -> subprocess.Popen[str]:
        if shutil.which("erl") is None:
            message = "there is no `erl` on the path"
            raise ErlangError(message)
        name = f"orderkeep_test_{os.getpid()}_{next(_numbers)}@{self.node_name.partition('@')[2]}"
        atexit.register(self.close)
        return subprocess.Popen(
            [
                *("erl", "-noshell", "-hidden", "+S", "1", "-boot", "start_clean"),
                *("-name" if "." in name else "-sname", name),
                *("-kernel", "inet_dist_use_interface", "{127,0,0,1}"),
                *("-eval", _PROGRAM % (_ANSWER_S_MAX * 1000)),
            ],
            env={**self.environment, "ORDERKEEP_TEST_NODE": self.node_name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            cwd="/",
            start_new_session=True,
        )
