"""The processes of TaskFlow, one package each."""
