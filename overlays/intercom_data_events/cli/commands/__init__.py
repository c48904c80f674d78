"""What each command does; :mod:`~intercom_data_events.cli.app` has their arguments."""
