from gebm_lightning.cli.export import main

if __name__ == "__main__":
    main()
