"""The client of a cluster: the only part of the SDK that knows gRPC. Loaded with the first `connect`.

endpoint    where the cluster is and who we are: environment, `tenure dev`'s file, enrolment
channels    gRPC channels with their credentials, and gRPC's errors in our words
sessions    one stream of calls to each peer
routes      which host holds an agent, by long polls of the servers
calls       one call, repeated under its id until its deadline
cluster     `Remote`: all of it together, and the registry's methods
"""

from tenure._remote.calls import Reply
from tenure._remote.cluster import Remote
from tenure._remote.endpoint import Endpoint, discover, enrol, from_dev_file, from_tls_directory, parse_url

__all__ = ["Endpoint", "Remote", "Reply", "discover", "enrol", "from_dev_file", "from_tls_directory", "parse_url"]
