from __future__ import annotations

from deepforge.events import Event, Events


async def test_a_listener_hears_its_topic_in_order() -> None:
    events = Events()
    async with events.listen("one") as queue:
        events.publish(Event("one", "first"))
        events.publish(Event("two", "other"))
        events.publish(Event("one", "second"))

        assert [queue.get_nowait().kind, queue.get_nowait().kind] == ["first", "second"]
        assert queue.empty()


async def test_a_slow_listener_loses_the_oldest_and_blocks_nobody() -> None:
    events = Events(queue_size=2)
    async with events.listen("one") as queue:
        for number in range(5):
            events.publish(Event("one", str(number)))

        assert [queue.get_nowait().kind, queue.get_nowait().kind] == ["3", "4"]


async def test_who_left_hears_nothing() -> None:
    events = Events()
    async with events.listen("one") as queue:
        pass
    events.publish(Event("one", "late"))

    assert queue.empty()
