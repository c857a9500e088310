"""Who the bearer of a ServiceAccount token is: the decision, and the question to the Kubernetes API."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from tenure_api.identity import Role
from tenure_proto.v1.enrolment_pb2 import EnrolRequest
from tenured.server.reviews import TokenReviews
from tenured.server.tokens import Bearer, EnrolmentRefused, ReviewStatus, bearer_of

AUDIENCE = "tenure.dev/shop/demo"
POD = "authentication.kubernetes.io/pod-name"


def review(account: str, *, pod: str = "", namespace: str = "shop", audience: str = AUDIENCE) -> ReviewStatus:
    import msgspec

    extra = {POD: [pod]} if pod else {}
    user = {"username": f"system:serviceaccount:{namespace}:{account}", "extra": extra}
    status = {"authenticated": True, "user": user, "audiences": [audience]}
    return msgspec.convert(status, ReviewStatus)


def bearer(status: ReviewStatus, role: Role = Role.HOST, name: str = "") -> Bearer:
    return bearer_of(status, role, name, "demo", "shop", AUDIENCE)


def test_a_host_is_the_pod_that_its_token_is_bound_to() -> None:
    assert bearer(review("demo-host-default", pod="demo-host-default-x1")) == Bearer(Role.HOST, "demo-host-default-x1")


def test_a_client_is_its_service_account() -> None:
    assert bearer(review("demo-client"), Role.CLIENT, "whoever") == Bearer(Role.CLIENT, "demo-client")


@pytest.mark.parametrize(
    ("status", "role", "name", "sentence"),
    [
        (ReviewStatus(error="token has expired"), Role.HOST, "", "does not accept the token: token has expired"),
        (review("demo-host-a", pod="p", audience="other"), Role.HOST, "", "is not for audience tenure.dev/shop/demo"),
        (review("demo-host-a", pod="p", namespace="x"), Role.HOST, "", "no ServiceAccount of namespace shop"),
        (review("default", pod="p"), Role.HOST, "", "ServiceAccount default may not act as a host"),
        (review("other-host-a", pod="p"), Role.HOST, "", "may not act as a host"),
        (review("demo-client"), Role.HOST, "", "may not act as a host"),
        (review("demo-host-a"), Role.HOST, "", "is not bound to a pod"),
        (review("demo-host-a", pod="p"), Role.HOST, "q", "is of pod p; it cannot enrol as q"),
        (review("demo-host-a", pod="p"), Role.CLIENT, "", "may not act as a client"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    status: ReviewStatus, role: Role, name: str, sentence: str
) -> None:
    with pytest.raises(EnrolmentRefused, match=sentence) as refused:
        bearer(status, role, name)
    assert not refused.value.retryable


class KubernetesApi:
    """Answers TokenReviews; keeps the questions."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, dict[str, object]]] = []
        self.status = 201
        self.runner: web.AppRunner | None = None

    async def start(self) -> str:
        app = web.Application()
        app.add_routes([web.post("/apis/authentication.k8s.io/v1/tokenreviews", self.answer)])
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def answer(self, request: web.Request) -> web.Response:
        self.questions.append((request.headers["Authorization"], await request.json()))
        user = {"username": "system:serviceaccount:shop:demo-host-a", "extra": {POD: ["pod-1"]}}
        status = {"authenticated": True, "user": user, "audiences": [AUDIENCE]}
        return web.json_response({"status": status}, status=self.status)


async def test_the_api_is_asked_with_our_own_token_for_our_audience(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("own token\n")
    api = KubernetesApi()
    reviews = TokenReviews("demo.shop", await api.start(), tmp_path)
    request = EnrolRequest(role="host", name="pod-1", token="the pod's token")
    assert await reviews.verify(request) == Bearer(Role.HOST, "pod-1")
    ((authorization, question),) = api.questions
    assert authorization == "Bearer own token"
    assert question["spec"] == {"token": "the pod's token", "audiences": [AUDIENCE]}
    api.status = 500
    with pytest.raises(EnrolmentRefused, match="answered 500") as refused:
        await reviews.verify(request)
    assert refused.value.retryable
    await reviews.close()
    assert api.runner is not None
    await api.runner.cleanup()


async def test_an_api_that_does_not_answer_may_be_asked_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("own token")
    reviews = TokenReviews("demo.shop", "http://127.0.0.1:1", tmp_path)
    with pytest.raises(EnrolmentRefused, match="could not check the token") as refused:
        await reviews.verify(EnrolRequest(role="host", token="x"))
    assert refused.value.retryable
    await reviews.close()
