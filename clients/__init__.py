"""What happens on a client: local rules, and the app that serves them."""

from clients.app import build_client_app
from clients.rules import RULE_CONFIGS, make_rules

__all__ = ["RULE_CONFIGS", "build_client_app", "make_rules"]
