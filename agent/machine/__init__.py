"""The machine: metadata service, spot, prices and cost, host, power, service manager."""
