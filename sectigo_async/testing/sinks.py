"""What every sink of bulk runs must do, as tests to inherit."""

from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from sectigo_async.errors import FileError
from sectigo_async.issuance import Sink


class SinkContract:
    """Tests for a `Sink` of your own.

    Inherit from it in a class that your test runner collects, and say how the sink is made:

    ```python
    class TestBucketSink(SinkContract):
        def make_sink(self) -> Sink:
            return BucketSink(...)
    ```

    Each test gets a new instance of that class and expects a sink in which nothing is kept.

    Attributes:
        shared: whether a second sink made by `make_sink` finds what the first has kept, as another host's must.
    """

    shared: ClassVar[bool] = True

    def make_sink(self) -> Sink:
        """Return the sink to test."""
        raise NotImplementedError

    def test_what_was_never_written_is_none(self) -> None:
        """There is no error where there is nothing, not even a folder."""
        sink = self.make_sink()
        assert sink.read("gw7/privkey.pem") is None
        assert sink.size("gw7/privkey.pem") is None
        sink.tidy([])
        sink.tidy(["gw7"])

    def test_what_was_written_is_read_as_it_was(self) -> None:
        """Every byte comes back, for everybody who has the sink, and its size with it."""
        sink = self.make_sink()
        files = {"gw7/a": b"", "gw7/b": bytes(range(256)) * 200, "gw8+/a": b"other", ".sectigo-async/sink": b"mark"}
        sink.write(files)
        other = self.make_sink() if self.shared else sink
        assert {name: other.read(name) for name in files} == files
        assert [other.size(name) for name in files] == [len(content) for content in files.values()]

    def test_another_content_takes_the_place_only_where_it_may(self) -> None:
        """A key that is there is never replaced unless that is asked for; the same content again does no harm."""
        sink = self.make_sink()
        sink.write({"gw7/privkey.pem": b"one"})
        sink.write({"gw7/privkey.pem": b"one"})
        refused = False
        try:
            sink.write({"gw7/privkey.pem": b"other"})
        except FileError:
            refused = True
        assert refused, "a file was replaced that nobody may replace"
        assert sink.read("gw7/privkey.pem") == b"one"
        sink.write({"gw7/privkey.pem": b"other"}, overwrite=True)
        assert sink.read("gw7/privkey.pem") == b"other"

    def test_to_tidy_up_removes_nothing_that_was_written(self) -> None:
        """What is whole stays."""
        sink = self.make_sink()
        sink.write({"gw7/privkey.pem": b"one"})
        sink.tidy(["gw7", "gw8"])
        assert sink.read("gw7/privkey.pem") == b"one"

    def test_many_write_at_once_to_folders_of_their_own(self) -> None:
        """Threads do not disturb each other."""
        sink = self.make_sink()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: sink.write({f"gw{number}/a": b"%d" % number}), range(64)))
        assert [sink.read(f"gw{number}/a") for number in range(64)] == [b"%d" % number for number in range(64)]

    def test_it_says_where_things_are(self) -> None:
        """For people, each place is another."""
        sink = self.make_sink()
        assert len({sink.where("gw7"), sink.where("gw8"), sink.where("gw7/privkey.pem")}) == 3  # noqa: PLR2004 - as many as are asked for
