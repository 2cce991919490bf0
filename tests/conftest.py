"""What all tests share: the server's logs go to stderr, as they do when it is started."""

from server import logs

logs.configure("warning", format="json")
