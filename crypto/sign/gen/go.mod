module causeway/crypto/sign/gen

go 1.26
