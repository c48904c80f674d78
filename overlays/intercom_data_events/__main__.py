"""Lets ``python -m intercom_data_events`` run ``intercom-events``."""

from intercom_data_events.cli import main

if __name__ == "__main__":
    main("python -m intercom_data_events")
