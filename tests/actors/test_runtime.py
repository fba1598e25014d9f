"""Who ends a Ray that several parts of a process use."""

from actors.runtime import SharedRay


def shared(*connects: bool) -> tuple[SharedRay, list[str]]:
    calls: list[str] = []
    answers = iter(connects)

    def connect(address, **options) -> bool:
        calls.append(f"connect {address} {options}")
        return next(answers)

    return SharedRay(connect, lambda: calls.append("disconnect")), calls


def test_the_last_to_leave_ends_what_the_first_began():
    ray, calls = shared(True, False)
    ray.join(None, preallocate=True)
    ray.join(None, preallocate=False)
    ray.leave()
    assert "disconnect" not in calls
    ray.leave()
    assert calls == ["connect None {'preallocate': True}", "connect None {'preallocate': False}", "disconnect"]


def test_a_ray_of_somebody_else_is_left_alone():
    ray, calls = shared(False)
    ray.join("auto")
    ray.leave()
    assert calls == ["connect auto {}"]


def test_it_begins_anew_after_its_end():
    ray, calls = shared(True, True)
    for _ in range(2):
        ray.join(None)
        ray.leave()
    assert calls == ["connect None {}", "disconnect"] * 2
