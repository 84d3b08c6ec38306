// One process of memberlist in Go: it tells on a line each where it listens, how many members it sees, and whom it finds
// dead, and ends with its input. Started by the report, as `src/real/member.rs` says it of the others.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

type events struct {
	members atomic.Int64
}

func (e *events) NotifyJoin(*memberlist.Node) {
	fmt.Printf("members %d\n", e.members.Add(1))
}

func (e *events) NotifyLeave(node *memberlist.Node) {
	fmt.Printf("dead %s\nmembers %d\n", node.Name, e.members.Add(-1))
}

func (e *events) NotifyUpdate(*memberlist.Node) {}

func main() {
	settings := memberlist.DefaultLANConfig()
	settings.Name = os.Args[1]
	settings.BindAddr = "127.0.0.1"
	settings.BindPort = 0
	settings.Events = &events{}
	settings.Logger = log.New(io.Discard, "", 0)
	node, err := memberlist.Create(settings)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("place %s\n", node.LocalNode().Address())
	// Whoever is not reached now is learned of by gossip.
	go node.Join(os.Args[2:])
	io.Copy(io.Discard, os.Stdin)
}
