package main

import (
	"bufio"
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/nearzone/nearzone/config"
)

const fallbackMemory = 1 << 30 // assumed where neither a cgroup nor /proc tells

// memoryFor is the cache's byte budget: store.memory, or a quarter of what this process may use. A quarter leaves
// room for connections, for Go's collector (which by default lets the heap double) and for the kernel's buffers.
func memoryFor(cfg *config.Config) int64 {
	if cfg.Store.Memory > 0 {
		return int64(cfg.Store.Memory)
	}
	return memoryLimit() / 4
}

// boundMemory tells Go's collector the limit of this process, less a tenth for what is outside the heap, unless
// GOMEMLIMIT has said so already. It works harder near the limit instead of being killed at it.
func boundMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit() / 10 * 9)
	}
}

// memoryLimit is the least of the cgroup's limit (v2, then v1) and the machine's memory, in bytes.
func memoryLimit() int64 {
	limit := int64(fallbackMemory)
	if total := machineMemory(); total > 0 {
		limit = total
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && n > 0 {
			limit = min(limit, n)
		}
	}
	return limit
}

func machineMemory() int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
