"""`tenure dev`: a local cluster of real processes, from the manifests that Kubernetes gets.

`plan` decides (pure), `authority` and `ports` prepare the directory, `processes` and `watchdog` start and end
processes, `cluster` ties them together. Tests, benches and the demo use `DevCluster` as `tenure dev` does.
"""
