"""What `make web` built, served: the device's page under ``/device/`` and the dashboard's scripts."""
