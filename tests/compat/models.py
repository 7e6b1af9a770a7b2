"""`client.models`: what is served, by plain and by slashed names."""

import openai

ENDPOINT = "models"


def run(report, callers, service, names):
    for caller in callers:
        with report.check("models", f"list, {caller.name}", (ENDPOINT, "list"), "honoured"):
            page = caller.call(listed if not caller.is_async else listed_async)
            assert [model.id for model in page] == names, [model.id for model in page]
            for model in page:
                check(model)
        for name in names:
            with report.check("models", f"retrieve {name}, {caller.name}", (ENDPOINT, "retrieve"), "honoured"):
                model = caller.call(lambda client, name=name: client.models.retrieve(name))
                check(model)
                assert model.id == name, model.id
        for name in ["whisper-none", "org/none", "../../etc/passwd", names[0] + "/", names[0] + "\0"]:
            with report.check("models", f"retrieve {name!r}, {caller.name}", (ENDPOINT, "retrieve"), "refused"):
                method = lambda client, name=name: client.models.retrieve(name)  # noqa: E731
                caller.refused(method, openai.NotFoundError)
    for name in names:
        with report.check("models", f"GET /v1/models/{name}", (ENDPOINT, "retrieve"), "honoured"):
            status, _, body = service.get(f"/v1/models/{name}")
            assert status == 200 and f'"{name}"'.encode() in body, (status, body)


def listed(client):
    return [model for model in client.models.list()]


async def listed_async(client):
    return [model async for model in client.models.list()]


def check(model):
    assert type(model) is openai.types.Model, type(model)
    assert model.object == "model" and isinstance(model.created, int) and model.created > 0, model
    assert isinstance(model.owned_by, str) and model.owned_by, model
