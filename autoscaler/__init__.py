"""The program that scales: a control loop over the targets of one configuration."""
