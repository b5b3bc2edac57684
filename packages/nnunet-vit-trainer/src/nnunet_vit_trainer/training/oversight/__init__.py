"""What is looked at while a run trains and when it has validated: data, steps, results."""
