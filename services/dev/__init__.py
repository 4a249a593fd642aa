"""What runs TaskFlow's processes on one machine: `taskflow dev`, the demo and the system tests."""
