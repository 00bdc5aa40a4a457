add_test(unit.header "/bin/true")
add_test(pgo.train "./app")
add_test(unit.footer "/bin/true")
