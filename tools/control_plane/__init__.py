"""Real etcd, kube-apiserver and kube-controller-manager for tests and the demo."""
