package p2p

func (n *node) kick() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wake != nil {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}
