from tests.support.update_fixtures import server, world

__all__ = ["server", "world"]
