"""What is deployed at home: rules, dashboard, Kubernetes manifests, image."""
