package node_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"causeway/codec"
	"causeway/engine/node"
)

// connect stands for what a program does: load an identity directory by
// pki.LoadIdentity, and name its routers.
func connect(ctx context.Context, domain *node.TestDomain, name string) *node.Node {
	cfg := domain.Config(name) // Identity, Routers
	cfg.Plain = true           // bodies may be read by the domain's routers
	cfg.AcceptPlain = true
	n, err := node.Connect(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func Example() {
	domain := node.NewTestDomain()
	defer domain.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	alice, bob := connect(ctx, domain, "alice"), connect(ctx, domain, "bob")
	defer alice.Close()
	defer bob.Close()
	domain.Settle(2)

	to, err := alice.Lookup(ctx, "bob")
	if err != nil {
		log.Fatal(err)
	}
	sent, err := alice.Send(ctx, to.Address, codec.CategoryApplication, []byte("good morning"))
	if err != nil {
		log.Fatal(err)
	}
	if err := sent.Confirmed(ctx); err != nil {
		log.Fatal(err)
	}
	m, err := bob.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s says %q\n", m.FromName, m.Body)
	// Output: alice says "good morning"
}

// Seen waits until the recipient has the message; a notice says why it has not.
func ExampleSent_Seen() {
	domain := node.NewTestDomain()
	defer domain.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	alice := connect(ctx, domain, "alice")
	defer alice.Close()
	domain.Settle(1)

	sent, err := alice.Send(ctx, domain.Nobody(), codec.CategoryApplication, []byte("hello?"))
	if err != nil {
		log.Fatal(err)
	}
	var notice *node.NoticeError
	if err := sent.Seen(ctx); errors.As(err, &notice) {
		fmt.Println("not delivered:", notice.Reason)
	}
	// Output: not delivered: no-route
}

func ExampleNode_Ping() {
	domain := node.NewTestDomain()
	defer domain.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	alice, bob := connect(ctx, domain, "alice"), connect(ctx, domain, "bob")
	defer alice.Close()
	defer bob.Close()
	domain.Settle(2)

	if _, err := alice.Ping(ctx, bob.Address(), []byte("anyone there?")); err != nil {
		log.Fatal(err)
	}
	fmt.Println("bob answered, without its application")
	// Output: bob answered, without its application
}

func ExampleNode_List() {
	domain := node.NewTestDomain()
	defer domain.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	alice, bob := connect(ctx, domain, "alice"), connect(ctx, domain, "bob")
	defer alice.Close()
	defer bob.Close()
	domain.Settle(2)

	members, err := alice.List(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range members {
		fmt.Println(m.Name)
	}
	// Output:
	// alice
	// bob
}
