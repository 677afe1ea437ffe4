"""The HTTP interface, asked as a client does: what it answers, keeps, refuses and counts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from helpers import fit_log, random_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessrec import models
from sessrec.serving import service as service_module
from sessrec.serving.api import create_app
from sessrec.serving.engine import TorchEngine
from sessrec.serving.schemas import MOST_BYTES
from sessrec.serving.service import Service
from sessrec.serving.session_store import MemoryStore, RedisStore

RUN = Path("lightning_logs/served")
pytestmark = pytest.mark.filterwarnings("ignore:.*unknown to the model")


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs on one log, and one on another."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for log, n_items in {"clicks.tsv": 14, "other.tsv": 9}.items():
            rows = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(120, n_items))]
            Path(log).write_text("\n".join(rows) + "\n")
        fit_log("clicks.tsv", model="Markov", run="served")
        fit_log("clicks.tsv", "--model.alpha", "0.9", model="Markov", run="newer")
        fit_log("other.tsv", model="Markov", run="other")
    return folder


@pytest.fixture
def service(fits: Path, tmp_path: Path) -> Service:
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.write_bytes((fits / RUN / "checkpoints" / "last.ckpt").read_bytes())
    return Service(checkpoint, TorchEngine.of_checkpoint, MemoryStore())


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service, token="secret"), raise_server_exceptions=False) as client:
        yield client


JSON = {"Content-Type": "application/json"}
WRITE = {"Authorization": "Bearer secret"}


def rounded(pairs: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(item, round(score, 6)) for item, score in pairs]


def pairs_of(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return rounded([(item["id"], item["score"]) for item in answer["items"]])


def ids_of(answer: dict[str, Any]) -> list[str]:
    return [item["id"] for item in answer["items"]]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_any_page_may_send_is_refused(client: TestClient, kind: str) -> None:
    answer = client.post("/v1/recommend", content=b'{"items": ["x1"]}', headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 415
    assert "must be application/json" in answer.json()["detail"]
    answer = client.post(
        "/v1/recommend", content=b'{"items": ["x1"]}', headers={"Content-Type": "Application/JSON; a=b"}
    )
    assert answer.status_code == 200


def test_a_client_that_goes_while_it_sends_is_no_fault(service: Service) -> None:
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": b'{"it', "more_body": True}, {"type": "http.disconnect"}])
    headers = [(b"content-type", b"application/json"), (b"content-length", b"90")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/recommend",
        "raw_path": b"/v1/recommend",
        "headers": headers,
    }
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("x", 1)}

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(create_app(service)(scope, receive, send))
    assert sent[0]["status"] == 400


def test_items_of_a_session_give_the_list_of_recommend(client: TestClient, fits: Path) -> None:
    model = models.Markov.load_from_checkpoint(fits / RUN / "checkpoints" / "last.ckpt")
    answer = client.post("/v1/recommend", json={"items": ["x1", "x2", "new"], "k": 5, "exclude": ["x3"]}).json()
    expected = model.recommend(["x1", "x2"], 5, exclude=["x3"])
    assert pairs_of(answer) == rounded(expected)
    assert (answer["known_items"], answer["unknown_items"], answer["fallback"]) == (2, 1, None)
    last = max(time for _, _, time in random_rows(120, 14))
    assert answer["model"]["run"] == "model"
    assert len(answer["model"]["digest"]) == 64
    until = answer["model"]["trained_until"]
    assert until.startswith("2020-09-")
    assert until < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(last))  # the test part comes later
    assert answer["took_ms"] > 0
    assert ids_of(client.post("/v1/recommend", json={"items": ["x1"], "allow": ["x9", "nothing"]}).json()) == ["x9"]


def test_a_session_is_kept_event_by_event(client: TestClient) -> None:
    def ask(**asked: Any) -> dict[str, Any]:
        return client.post("/v1/recommend", json=asked).json()

    for item in ("x1", "x2", "x7"):
        kept = ask(session_id="a", item=item, exclude_seen=True, k=14)
    assert ids_of(kept) == ids_of(ask(items=["x1", "x2", "x7"], exclude_seen=True, k=14))
    assert ask(session_id="a")["known_items"] == 3  # no event is added
    assert ask(session_id="a", item="x3", consent=False)["known_items"] == 1  # neither kept nor read
    assert ask(session_id="a")["known_items"] == 3
    assert ask(session_id="b")["fallback"] == "empty_session"
    ask(session_id="a/b", item="x1")
    assert client.delete("/v1/sessions/a%2Fb", headers=WRITE).json() == {"deleted": True}
    assert client.delete("/v1/sessions/a", headers=WRITE).json() == {"deleted": True}
    assert client.delete("/v1/sessions/a", headers=WRITE).json() == {"deleted": False}
    assert ask(session_id="a")["known_items"] == 0


def test_several_sessions_in_one_request(client: TestClient) -> None:
    sessions = [["x1"], ["x2", "x5"], ["new"], []]
    answers = client.post("/v1/recommend:batch", json={"requests": [{"items": own} for own in sessions]}).json()
    alone = [client.post("/v1/recommend", json={"items": own}).json() for own in sessions]
    assert [ids_of(answer) for answer in answers] == [ids_of(answer) for answer in alone]
    assert [answer["fallback"] for answer in answers] == [None, None, "unknown_items", "empty_session"]
    assert client.post("/v1/recommend:batch", json={"requests": [{"session_id": "a"}]}).status_code == 422


def test_what_is_available(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(**change: Any) -> Any:
        return client.put("/v1/availability", json=change, headers=WRITE).json()

    def listed() -> list[str]:
        return sorted(ids_of(client.post("/v1/recommend", json={"items": ["x1"], "k": 14}).json()))

    everything = listed()
    assert put(available=["x1", "x2", "x3", "of-tomorrow"]) == {"available_items": 3}
    assert listed() == ["x1", "x2", "x3"]
    assert put(add=["x4"], remove=["x1"]) == {"available_items": 3}
    assert listed() == ["x2", "x3", "x4"]
    assert ids_of(client.post("/v1/recommend", json={"items": ["new"], "allow": ["x1", "x2"]}).json()) == ["x2"]
    assert put(available=None) == {"available_items": 14}
    assert listed() == everything
    assert put(remove=["x1"]) == {"available_items": 13}
    assert listed() == [item for item in everything if item != "x1"]
    assert put(add=["x1"]) == {"available_items": 14}
    assert client.put("/v1/availability", json={}, headers=WRITE).status_code == 422
    assert put(available=["x1", "x2", "x3"]) == {"available_items": 3}
    monkeypatch.setattr(service_module, "MOST_KEPT", 3)
    refused = client.put("/v1/availability", json={"add": ["x5"]}, headers=WRITE)
    assert (refused.status_code, "would be kept" in refused.json()["detail"]) == (409, True)
    assert put(remove=["x1"]) == {"available_items": 2}  # nothing of what was refused is left


def test_a_missed_deadline_gives_popular_items(client: TestClient, service: Service) -> None:
    engine = service.engine

    class Slow:
        origin, most_k, answer = (
            engine.origin,
            None,
            staticmethod(lambda requests: time.sleep(0.2) or engine.answer(requests)),
        )
        popular = staticmethod(engine.popular)

    service.engine = Slow  # type: ignore[assignment]
    asked = {"items": ["x1", "x2"], "timeout_ms": 20, "k": 14}
    answer = client.post("/v1/recommend", json=asked).json()
    counts = dict(zip(engine.model.vocabulary.item_ids, engine.model.vocabulary.counts.tolist(), strict=True))
    assert answer["fallback"] == "deadline"
    assert answer["took_ms"] < 180
    assert [item["score"] for item in answer["items"]] == sorted(counts.values(), reverse=True)
    for rule, gone in {"exclude_last": {"x2"}, "exclude_seen": {"x1", "x2"}}.items():
        answer = client.post("/v1/recommend", json=asked | {rule: True}).json()
        assert sorted(ids_of(answer)) == sorted(counts.keys() - gone)


def test_reload(client: TestClient, service: Service, fits: Path) -> None:
    def replace(run: str) -> None:
        service.checkpoint.write_bytes((fits / "lightning_logs" / run / "checkpoints" / "last.ckpt").read_bytes())

    before = client.post("/v1/recommend", json={"items": ["x1"]}).json()
    client.put("/v1/availability", json={"remove": ["x4"]}, headers=WRITE)
    replace("newer")
    assert client.post("/v1/reload", headers=WRITE).json()["digest"] != before["model"]["digest"]
    after = client.post("/v1/recommend", json={"items": ["x1"]}).json()
    assert after["model"]["digest"] == client.get("/v1/model").json()["digest"] != before["model"]["digest"]
    newer = models.Markov.load_from_checkpoint(fits / "lightning_logs/newer/checkpoints/last.ckpt")
    expected = newer.recommend(["x1"], exclude=["x4"])
    assert pairs_of(after) == rounded(expected)
    replace("other")
    refused = client.post("/v1/reload", headers=WRITE)
    assert refused.status_code == 409
    assert "lacks 5 of its items: any_catalogue true takes it" in refused.json()["detail"]
    service.checkpoint.write_bytes(b"damaged")
    assert "damaged" in client.post("/v1/reload", headers=WRITE).json()["detail"]
    assert client.post("/v1/recommend", json={"items": ["x1"]}).json()["model"] == after["model"]
    replace("other")
    assert client.post("/v1/reload", json={"any_catalogue": True}, headers=WRITE).status_code == 200
    assert client.get("/v1/model").json()["n_items"] == 9


def test_a_model_whose_scores_are_no_numbers_is_refused(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: Path) -> Any:
        model = models.Markov.load_from_checkpoint(file)
        monkeypatch.setattr(model, "score", lambda queries, items: torch.full((len(queries), 14), float("nan")))
        return model

    monkeypatch.setattr("sessrec.callbacks.checkpoints.load_model", broken)
    digest = service.engine.origin.digest
    refused = client.post("/v1/reload", headers=WRITE)
    assert (refused.status_code, "are no numbers: it cannot be served" in refused.json()["detail"]) == (409, True)
    assert service.engine.origin.digest == digest


@pytest.mark.parametrize("route", [("PUT", "/v1/availability"), ("DELETE", "/v1/sessions/a"), ("POST", "/v1/reload")])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "secré"}])
def test_writing_routes_need_the_token(client: TestClient, route: tuple[str, str], headers: dict[str, str]) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    refused = client.request(*route, json={"available": []}, headers=encoded)
    assert refused.status_code == 401
    assert "Authorization: Bearer TOKEN" in refused.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": ["x1"], "session_id": "a"},
        {"items": ["x1"], "k": 0},
        {"items": ["x1"], "k": 1001},
        {"items": ["x1"], "k": "five"},
        {"items": [1]},
        {"items": "x1"},
        {"items": [""]},
        {"items": ["x" * 257]},
        {"items": ["x1"] * 501},
        {"item": ["x1"]},
        {"items": ["x1"], "timeout_ms": 0},
        {"items": ["x1"], "timeout_ms": float("inf")},
        {"items": ["x1"], "exclud": ["x2"]},
    ],
)
def test_what_is_no_request_is_told(client: TestClient, body: dict[str, Any]) -> None:
    refused = client.post("/v1/recommend", content=json.dumps(body), headers=JSON)
    assert refused.status_code == 422
    assert (
        next(iter([name for name in ("exclud", "timeout_ms", "k", "items", "item") if name in body]), "give")
        in (refused.json()["detail"])
    )
    assert client.post("/v1/recommend", content=json.dumps(body)[:-1], headers=JSON).status_code == 422


def test_large_bodies_are_refused_unread(client: TestClient) -> None:
    body = b'{"items": ["' + b"x" * MOST_BYTES + b'"]}'
    assert client.post("/v1/recommend", content=body, headers=JSON).status_code == 413

    def parts() -> Iterator[bytes]:  # without a length in the head
        for _ in range(3):
            yield body[: MOST_BYTES // 2]

    refused = client.post("/v1/recommend", content=parts(), headers=JSON)
    assert refused.status_code == 413
    assert "a body of more than 4,194,304 bytes" in refused.json()["detail"]


def test_a_store_that_is_down_stops_sessions_alone(service: Service) -> None:
    service.store = RedisStore("redis://127.0.0.1:9/0")
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        refused = client.post("/v1/recommend", json={"session_id": "a", "item": "x1"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert client.post("/v1/recommend", json={"items": ["x1"]}).status_code == 200
    assert client.get("/readyz").status_code == 503  # the client has ended the application
    service.store = None


def test_without_a_store_sessions_are_refused(service: Service) -> None:
    service.store = None
    with TestClient(create_app(service)) as client:
        refused = client.post("/v1/recommend", json={"session_id": "a", "item": "x1"})
        assert (refused.status_code, "keeps no sessions" in refused.json()["detail"]) == (422, True)
        assert client.post("/v1/recommend", json={"item": "x1"}).json()["known_items"] == 1


def test_a_full_queue_answers_503(client: TestClient, service: Service) -> None:
    service.batcher._most_waiting = 0
    refused = client.post("/v1/recommend", json={"session_id": "a", "item": "x1"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    service.batcher._most_waiting = 5
    assert client.post("/v1/recommend:batch", json={"requests": [{"items": ["x1"]}] * 6}).status_code == 503
    again = client.post("/v1/recommend", json={"session_id": "a", "item": "x1"}).json()
    assert again["known_items"] == 1  # who was sent away comes again with the same event, which is kept once
    for _ in range(9):  # no place is lost where a request is refused
        assert client.post("/v1/recommend", json={"items": ["x1"], "item": "x1"}).status_code == 422
    assert client.post("/v1/recommend:batch", json={"requests": [{"items": ["x1"]}] * 5}).status_code == 200


def test_what_prometheus_is_told(client: TestClient) -> None:
    for items in (["x1", "new"], ["new"], []):
        client.post("/v1/recommend", json={"items": items})
    lines = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
    assert float(lines["sessrec_unknown_items_total"]) == 2
    assert float(lines['sessrec_fallbacks_total{reason="unknown_items"}']) == 1
    assert float(lines["sessrec_batch_size_count"]) == 3
    assert float(lines['sessrec_request_seconds_count{route="/v1/recommend",status="200"}']) == 3
    assert float(lines["sessrec_model_age_hours"]) > 24 * 365
    client.post("/v1/recommend", json={})
    client.post("/v1/reload")
    text = client.get("/metrics").text
    assert 'sessrec_rejected_total{reason="no_request"} 1.0' in text
    assert 'sessrec_rejected_total{reason="unauthorised"} 1.0' in text
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from(
    ["session_id", "item", "items", "k", "allow", "exclude", "exclude_seen", "consent", "timeout_ms", "requests", "add"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    route=st.sampled_from(["/v1/recommend", "/v1/recommend:batch", "/v1/reload", "/v1/availability", "/v1/sessions/a"]),
    body=json_values | st.dictionaries(fields, json_values | st.lists(st.sampled_from(["x1", "x2"])), max_size=4),
)
def test_no_request_breaks_the_server(client: TestClient, route: str, body: Any) -> None:
    method = {"/v1/availability": "PUT", "/v1/sessions/a": "DELETE"}.get(route, "POST")
    content = json.dumps(body).encode()  # with Infinity, which is no JSON, too
    answer = client.request(method, route, content=content, headers=WRITE | JSON)
    assert answer.status_code < 500
    assert "Traceback" not in answer.text


def test_probes_are_of_the_whole_catalogue(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_N_PROBES", 14)
    asked: list[str] = []
    engine = service.engine
    answer = type(engine).answer
    monkeypatch.setattr(
        type(engine), "answer", lambda self, rs: asked.extend(r.item_ids[0] for r in rs) or answer(self, rs)
    )
    service._probe(engine)
    assert asked == engine.model.vocabulary.item_ids
