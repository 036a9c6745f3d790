package lane

import "time"

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.Conn.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}

// SetReadDeadline is net/http's. The gate's own deadline for a head counts beside it, whichever is earlier.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.user = t
	c.cond.Broadcast()
	return c.applyDeadline()
}

// startHead starts the clock of a head, unless it runs. net/http's own clock would begin with the wait for it.
func (c *conn) startHead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.head.IsZero() {
		c.head = time.Now().Add(c.gate.headTimeout)
		c.applyDeadline()
	}
}

// endHead stops the clock of a head.
func (c *conn) endHead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = time.Time{}
	c.applyDeadline()
}

// headExpired reports whether it was the head's clock that ended a read.
func (c *conn) headExpired() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.head.IsZero() && !time.Now().Before(c.head)
}

// applyDeadline gives the socket the earlier of the two. It is called with mu held, so that the last caller wins.
func (c *conn) applyDeadline() error {
	t := c.user
	if !c.head.IsZero() && (t.IsZero() || c.head.Before(t)) {
		t = c.head
	}
	return c.Conn.SetReadDeadline(t)
}
