"""Cheap models of the clients' objectives, fitted on the queries made so far."""
