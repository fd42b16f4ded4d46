"""What SageMaker does with a container, done on this machine with any container engine."""
