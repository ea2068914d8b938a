"""A short way through Flask for most requests.

A request whose method and path match a plain rule goes straight to its view, with Flask's two
context variables set; every other request, and every exception, goes Flask's own way. Both ways
give the same answers: tests/unit/test_short_way.py sends the same requests both ways.

Every private name of Flask 3.1 that hasher uses stands here.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flask
from flask import Flask, Request, Response
from flask.ctx import RequestContext
from flask.globals import _cv_app, _cv_request
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import BaseConverter, Rule

from hasher.telemetry.record import Environ, current

VARIABLE = re.compile(r"<(?:(\w+):)?(\w+)>")

HOOKS = (
    "before_request_funcs",
    "after_request_funcs",
    "teardown_request_funcs",
    "teardown_appcontext_funcs",
    "url_value_preprocessors",
)
SIGNALS = (
    "appcontext_popped",
    "appcontext_pushed",
    "appcontext_tearing_down",
    "request_finished",
    "request_started",
    "request_tearing_down",
)


@dataclass(frozen=True)
class PlainRule:
    """A rule that is a fixed path, or a pattern of one regular expression."""

    endpoint: str
    route: str
    """What the record of a request calls it, such as `/messages/<digest>`."""
    rule: Rule


class PlainRules:
    """The plain rules of an application, for GET and POST."""

    def __init__(self, app: Flask) -> None:
        self._fixed: dict[tuple[str, str], PlainRule] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], PlainRule]]] = {}
        for rule in filter(is_plain, app.url_map.iter_rules()):
            for method in {"GET", "POST"}.intersection(rule.methods or ()):
                self._add(method, rule, app)

    def _add(self, method: str, rule: Rule, app: Flask) -> None:
        plain = PlainRule(rule.endpoint, route_of(rule), rule)
        if not rule.arguments:
            self._fixed[method, rule.rule] = plain
        elif pattern := pattern_of(rule, app):
            self._patterns.setdefault(method, []).append((pattern, plain))

    def match(self, method: str, path: str) -> tuple[PlainRule, dict[str, str]] | None:
        """Return the plain rule that a request matches, and the arguments of its view."""
        if plain := self._fixed.get((method, path)):
            return plain, {}
        for pattern, plain in self._patterns.get(method, ()):
            if found := pattern.fullmatch(path):
                return plain, found.groupdict()
        return None


def is_plain(rule: Rule) -> bool:
    """Return whether `rule` is matched by its path and method alone."""
    special = rule.build_only or rule.alias or rule.websocket or rule.redirect_to or rule.defaults
    return not (special or rule.subdomain or rule.host)


def pattern_of(rule: Rule, app: Flask) -> re.Pattern[str] | None:
    """Return the path of `rule` as one pattern; None if a converter does more than match."""
    parts = VARIABLE.split(rule.rule)
    pattern = re.escape(parts[0])
    for converter, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        kind = app.url_map.converters[converter or "default"]
        if {kind.__init__, kind.to_python} != {BaseConverter.__init__, BaseConverter.to_python}:
            return None
        pattern += f"(?P<{name}>{kind.regex}){re.escape(text)}"
    return None if "<" in VARIABLE.sub("", rule.rule) else re.compile(pattern)


def route_of(rule: Rule) -> str:
    """Return `rule` without its converters."""
    return VARIABLE.sub(r"<\2>", rule.rule)


class NoSessions(SessionInterface):
    """One session for all requests, which nothing can be written to."""

    session = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002 - Flask's
        """Return the null session that all requests share."""
        return self.session


class LazyRequest(Request):
    """A request that has only its environ until another attribute is asked for."""

    def __init__(self, environ: Environ) -> None:
        self.environ = environ

    def __getattr__(self, name: str) -> Any:
        """Make the whole request, unless it is made already, and return one of its attributes."""
        if "method" in vars(self):
            raise AttributeError(name)
        super().__init__(self.environ, populate_request=False)
        return getattr(self, name)


class LazyContext(RequestContext):
    """The context of a request that is matched already, and of its application."""

    url_adapter = None
    flashes = None
    _session = NoSessions.session

    def __init__(self, app: Flask, request: Request) -> None:
        self.app, self.request = app, request
        self._after_request_functions = []
        self._cv_tokens = []

    @cached_property
    def g(self) -> Any:
        """The namespace of this request."""
        return self.app.app_ctx_globals_class()

    def preserve(self, push: Callable[[Any], None]) -> None:
        """Have a test client push both contexts, for its `with` block."""
        app_context = self.app.app_context()
        app_context.g = self.g
        push(app_context)
        push(self)


def current_environ() -> Environ:
    """Return what `flask.request.environ` is, without its proxy, which costs as much as a view."""
    environ: Environ = _cv_request.get().request.environ
    return environ


def current_application() -> Flask:
    """Return what `flask.current_app` stands for."""
    return _cv_app.get().app


class ShortWay(Flask):
    """Flask with the short way, which is open once `complete` was called."""

    session_interface = NoSessions()
    plain_rules: PlainRules | None = None

    def complete(self) -> None:
        """Open the short way: the application has all its rules.

        RuntimeError if it has a hook or a signal that the short way would not call; from here on
        Flask refuses to add a hook, as it does after its first request.
        """
        hooks = [name for name in HOOKS if getattr(self, name)]
        signals = [name for name in SIGNALS if getattr(flask.signals, name).receivers]
        if left_out := hooks + signals:
            raise RuntimeError(f"The short way through Flask would not call {', '.join(left_out)}.")
        self._got_first_request = True
        self.plain_rules = PlainRules(self)

    def wsgi_app(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request, the short way if it matches a plain rule."""
        rules = self.plain_rules
        found = rules and rules.match(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if not found:
            return super().wsgi_app(environ, start_response)
        plain, arguments = found
        current().route = plain.route
        request = LazyRequest(environ)
        request.url_rule, request.view_args = plain.rule, arguments
        context = LazyContext(self, request)
        app_token = _cv_app.set(context)  # type: ignore[arg-type]
        request_token = _cv_request.set(context)
        try:
            response = self._answer(context, plain.endpoint, arguments)
            return response(environ, start_response)
        finally:
            if "werkzeug.debug.preserve_context" in environ:  # a test client's `with` block
                context.preserve(environ["werkzeug.debug.preserve_context"])
            _cv_request.reset(request_token)
            _cv_app.reset(app_token)

    def _answer(self, context: LazyContext, endpoint: str, arguments: dict[str, str]) -> Response:
        """Call the view; Flask finishes an answer that is more, or other, than a response."""
        try:
            answer: Any = self.view_functions[endpoint](**arguments)
            if isinstance(answer, Response) and not context._after_request_functions:  # noqa: SLF001
                return answer
            return self.finalize_request(answer)
        except Exception as error:  # noqa: BLE001 - Flask has a handler for each
            return self._answer_error(error)

    def _answer_error(self, error: Exception) -> Response:
        try:
            return self.finalize_request(self.handle_user_exception(error))
        except Exception as unhandled:  # noqa: BLE001 - as Flask itself does
            return self.handle_exception(unhandled)

    def dispatch_request(self) -> Any:
        """Note the rule that was matched, and call the view in Flask's own way."""
        if rule := flask.request.url_rule:
            current().route = route_of(rule)
        return super().dispatch_request()
