"""The node. Shares its name with the generated `sam2_ros.msg` and `sam2_ros.srv`, wherever those are installed."""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
