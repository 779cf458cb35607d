"""Adapt keyctl to LiteLLM's proxy: verify keys as its `custom_auth`, and charge what they spend as its callback.

```yaml
general_settings:
  custom_auth: keyctl.gateway.litellm.user_api_key_auth
  custom_auth_run_common_checks: true
litellm_settings:
  enable_post_custom_auth_checks: true
  callbacks: keyctl.gateway.litellm.logger
```

The proxy enforces from what `user_api_key_auth` returns: requests and tokens a minute, parallel requests
of a key, routes and models.  It enforces neither blocks nor ends nor budgets of keys that are not in
its own database, nor knows who made a batch, so this package does.  Tried with LiteLLM 1.109.1 and
1.110.2.
"""

import os
import sys

from keyctl.gateway import environment
from keyctl.gateway.litellm import key_info
from keyctl.gateway.litellm.auth import user_api_key_auth
from keyctl.gateway.litellm.callback import logger

# The proxy loads this while it starts; whoever only looks at it should not have to load the proxy.
if (_proxy := sys.modules.get("litellm.proxy.proxy_server")) is not None and hasattr(_proxy, "app"):
    # A proxy that does not start is seen; one that answers every request with 503 for a wrong word is not.
    environment.check(os.environ)
    key_info.serve_on(_proxy.app)

__all__ = ["logger", "user_api_key_auth"]
