"""The guarded HTTP client: every URL a user can influence is fetched through here.

The guard sits where connections are made, not in front of the request: a host is resolved once, all
its addresses are checked, and the connection goes to a checked one. So a name that answers
differently the second time, a redirect and an odd spelling of an address are all the same case.
"""

from app.egress.client import Egress, Resolver, Response, Stream
from app.egress.policy import Policy, check_url, is_refused

__all__ = ["Egress", "Policy", "Resolver", "Response", "Stream", "check_url", "is_refused"]
