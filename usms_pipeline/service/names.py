from usms_pipeline.service.scrub import Forgotten, Scrubber
class Names:
    def __init__(self, forgotten, book, phones=()):
        self.forgotten = forgotten
        self._s = Scrubber(forgotten, book, phones)
    def any_in(self, body):
        return self._s.scrub(body) != body
