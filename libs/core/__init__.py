"""TaskFlow's shared package: settings, domain, stores and verbs."""
